"""`tidegate init`: a folder to start from."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Annotated

import typer

from engine.cli.opening import say
from engine.errors import WrongCall

SOURCE = Path(__file__).resolve().parents[2]

SETTINGS = """# Settings per environment; `tidegate check --origin` says where each value comes from.
environments:
  default:
    email: {transport: maildir}
"""

WORKSPACE = """# One file per tenant: the fields that its users may have, and the events that they send.
workspace: example
timezone: UTC
sender: {name: Example, address: news@example.org}
attributes:
  plan: {type: string, case: ignore}
events:
  Order Completed:
    value: {type: decimal, scale: 2}
aggregates:
  orders_count: {event: Order Completed, count: true}
  last_order_at: {event: Order Completed, last: true}
"""

CAMPAIGN = """campaign: welcome-back
workspace: example
kind: continuous
audience:
  all:
    - orders_count: {gte: 1}
    - last_order_at: {older_than: 30d}
  none:
    - unsubscribed: true
entry: {again_after: 90d}
goal: {event: {name: Order Completed}, within: 14d}
messages:
  - name: we-miss-you
    channel: email
    subject: "{{ user.first_name | default: 'Hello' }}, it has been a while"
    body: templates/we-miss-you.html
"""

TEMPLATE = """<p>{{ user.first_name | default: 'Hello' }},</p>
<p>your last order was on {{ user.last_order_at | date: '%d %B %Y' }}. Come and see what is new.</p>
"""

ENVIRONMENT = """# Copy to .env and fill in; without these, `tidegate up` starts local services.
# TIDEGATE_SERVICES__MONGO_URL=mongodb://user:password@host/?tls=true
# TIDEGATE_SERVICES__BROKER_URL=rediss://:password@host:6380/0
# TIDEGATE_SERVICES__CACHE_URL=rediss://:password@other-host:6380/0
# TIDEGATE_SERVICES__ELASTIC_URL=https://host:9243
# TIDEGATE_SERVICES__ELASTIC_API_KEY=
# TIDEGATE_EMAIL__TRANSPORT=smtp
# TIDEGATE_EMAIL__HOST=
# TIDEGATE_EMAIL__USERNAME=
# TIDEGATE_EMAIL__PASSWORD=
"""


def mount(app: typer.Typer) -> None:
    """Add the command to `app`."""
    app.command(epilog="Example: tidegate init our-campaigns")(init)


def init(
    folder: Annotated[Path, typer.Argument(help="Where; made if missing.")] = Path(),
) -> None:
    """Write a Procfile, policies, settings, an example workspace and campaign; nothing that exists is touched."""
    files = {
        "conf/settings.yaml": SETTINGS,
        "conf/workspaces/example.yaml": WORKSPACE,
        "campaigns/welcome-back.yaml": CAMPAIGN,
        "campaigns/templates/we-miss-you.html": TEMPLATE,
        ".env.example": ENVIRONMENT,
        ".gitignore": "var/\n.env\n",
    }
    copied = ["Procfile", *(str(path.relative_to(SOURCE)) for path in sorted((SOURCE / "policies").rglob("*.yaml")))]
    present = [name for name in (*files, *copied) if (folder / name).exists()]
    if present:
        raise WrongCall(f"{present[0]} exists in {folder} already", remedy="choose an empty folder")
    for name in (*files, *copied):
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
    for name, text in files.items():
        (folder / name).write_text(text, encoding="utf-8")
    for name in copied:
        shutil.copyfile(SOURCE / name, folder / name)
    say(f"{len(files) + len(copied)} files are in {folder}")
    say("next: tidegate up, then tidegate campaign apply campaigns/*.yaml")
