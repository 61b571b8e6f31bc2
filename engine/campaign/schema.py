"""JSON Schemas of the files that people write, generated from the models, for completion in editors.

`python -m engine.campaign.schema FOLDER` writes them; a test fails when those in `conf/schemas/` are out of date. They
describe shapes and keys; `load_policies` and `load_campaign` check rules that need the whole set (a lane that no fleet
serves).
"""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Final

from pydantic import BaseModel

from engine.campaign.model import CampaignFile
from engine.policy.models import Lanes, Profile

MODELS: Final[dict[str, type[BaseModel]]] = {"campaign": CampaignFile, "lanes": Lanes, "profile": Profile}


def schemas() -> dict[str, str]:
    """Return the text of each schema by its file name."""
    texts: dict[str, str] = {}
    for name, model in MODELS.items():
        schema = {"$schema": "https://json-schema.org/draft/2020-12/schema"} | model.model_json_schema(by_alias=True)
        texts[f"{name}.schema.json"] = json.dumps(schema, indent=2, sort_keys=True) + "\n"
    return texts


def write(folder: Path) -> None:
    """Write every schema into `folder`."""
    folder.mkdir(parents=True, exist_ok=True)
    for name, text in schemas().items():
        (folder / name).write_text(text, encoding="utf-8")


if __name__ == "__main__":
    write(Path(sys.argv[1] if len(sys.argv) > 1 else "conf/schemas"))
