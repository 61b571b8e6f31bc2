"""Loads settings: flags override environment variables, these override `.env`, and `.env` overrides the settings file.

`conf/settings.yaml` holds `environments:`; the one that `TIDEGATE_ENV` picks overrides `default`.
`TIDEGATE_SECTION__KEY` in `.env` or (stronger) in the environment overrides a key, and a flag overrides that. The
engine knows the origin of each value and never shows secrets.
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
