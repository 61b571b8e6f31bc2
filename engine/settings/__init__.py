"""Settings: a file per environment, below `.env`, below environment variables, below flags; each origin can be told.

`conf/settings.yaml` holds `environments:`, of which `default` lies below the one that `TIDEGATE_ENV` picks.
`TIDEGATE_SECTION__KEY` in `.env` or (stronger) in the environment overrides a key, and a flag overrides that. Secrets
are never shown.
"""

from engine.settings.load import LoadedSettings, Origin, load_settings
from engine.settings.model import Email, Engine, Logs, Paths, Services, Settings
from engine.settings.variables import DOTENV

__all__ = [
    "DOTENV",
    "Email",
    "Engine",
    "LoadedSettings",
    "Logs",
    "Origin",
    "Paths",
    "Services",
    "Settings",
    "load_settings",
]
