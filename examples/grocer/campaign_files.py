"""The campaigns of a replay as files: the four written by hand, and one for each list campaign that launches in it."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Final

from examples.grocer.data import WORKSPACE, ListCampaign, Window, list_campaigns

HERE: Final = Path(__file__).parent
CONTINUOUS: Final = ("lapsed", "big-spender", "deli-no-seafood", "redeemed-and-back")
"""The campaigns under `campaigns/`, live from a replay's first day to its last."""

LIST_CAMPAIGN: Final = """\
# Campaign {number} of the grocer ({type}): a one-off to the {members} households on its list.
campaign: {name}
workspace: {workspace}
kind: one_off
starts_at: {start}
audience:
  list: {list}
messages:
  - name: offer
    channel: email
    subject: "Your coupons of campaign {number}"
    body: |
      <html>
        <body>
          <h1>Coupons for you</h1>
          <p>Dear {{{{ user.user_id }}}}, campaign {number} begins today. Show this mail at the till.</p>
          <p>The Grocer</p>
        </body>
      </html>
"""


def write_campaigns(folder: Path, window: Window) -> list[Path]:
    """Write every campaign of the replay into `folder` (created; templates beside); their files, the four first."""
    shutil.copytree(HERE / "campaigns", folder, dirs_exist_ok=True)
    lists = [campaign for campaign in list_campaigns() if window.launch_day(campaign)]
    return [
        *(folder / f"{name}.yaml" for name in CONTINUOUS),
        *(write_list_campaign(folder, campaign) for campaign in lists),
    ]


def write_list_campaign(folder: Path, campaign: ListCampaign) -> Path:
    """Write the file of one list campaign, with its real start date."""
    path = folder / f"{campaign.name}.yaml"
    text = LIST_CAMPAIGN.format(
        number=campaign.number,
        type=campaign.type,
        members=len(campaign.households),
        name=campaign.name,
        workspace=WORKSPACE,
        start=campaign.start.isoformat(),
        list=campaign.list,
    )
    path.write_text(text, encoding="utf-8")
    return path
