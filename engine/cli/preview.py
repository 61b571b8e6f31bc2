"""`tidegate campaign preview`: a message rendered for a user or a made-up one, on the terminal or in files."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from engine.cli.context import AsJson, InWorkspace, opened, say, show_json
from engine.domain.keys import user_key
from engine.errors import EngineError, NotFound, WrongCall

if TYPE_CHECKING:
    from engine.app.app import App
    from engine.campaign.load import LoadedCampaign
    from engine.domain.document import UserDocument
    from engine.pipeline.insight.preview_message import Preview

HtmlFile = Annotated[Path | None, typer.Option(help="Write the HTML to this file; - is the terminal.")]
EmlFile = Annotated[Path | None, typer.Option(help="Write the whole mail to this file; - is the terminal.")]


def show_preview(
    context: typer.Context,
    campaign: Annotated[str, typer.Argument(help="The campaign's name, or a campaign file that is not yet applied.")],
    message: Annotated[str | None, typer.Option(help="The message; default: the first.")] = None,
    user: Annotated[str | None, typer.Option(help="As this user would get it.")] = None,
    sample: Annotated[bool, typer.Option("--sample", help="As a made-up user with every field (the default).")] = False,
    empty: Annotated[bool, typer.Option("--empty", help="As a made-up user without any field.")] = False,
    html: HtmlFile = None,
    eml: EmlFile = None,
    text: Annotated[bool, typer.Option("--text", help="Only the text part.")] = False,
    headers: Annotated[bool, typer.Option("--headers", help="Only the headers and the envelope.")] = False,
    workspace: InWorkspace = None,
    as_json: AsJson = False,
) -> None:
    """Show a message as it would be sent: headers, text and HTML; nothing is sent, nothing is recorded."""
    from engine.pipeline.insight.explain_user import unreachable
    from engine.pipeline.insight.preview_message import preview

    if sum((user is not None, sample, empty)) > 1:
        raise WrongCall("--user, --sample and --empty exclude each other", remedy="give one of them")
    with opened(context) as app:
        loaded = _loaded(app, campaign, workspace)
        document = None if user is None else living_user(app, loaded.file.workspace, user)
        made = preview(
            loaded,
            message,
            document,
            empty=empty,
            as_of=app.clock.campaign_now(),
            sent_at=app.system.system_now(),
            bounces=app.settings.email.envelope_from,
        )
        skipped = "" if document is None else unreachable(app.stores.suppressions, loaded.file.workspace, document)
    if skipped:
        say(f"note: {user} gets no mail. {skipped[0].upper()}{skipped[1:]}")
    _show(made, html=html, eml=eml, text=text, headers=headers, as_json=as_json)


def _loaded(app: App, campaign: str, workspace: str | None) -> LoadedCampaign:
    from engine.campaign.load import load_campaign

    if campaign.endswith((".yaml", ".yml")):
        return load_campaign(Path(campaign), app.catalogues, app.policies)
    return app.campaign_cache.of(app.named(campaign, workspace)).loaded


def living_user(app: App, workspace: str, user: str) -> UserDocument:
    """Return the document of a user, to render a mail for. Raises `NotFound`, also for a deleted user."""
    documents = app.stores.users.read_keys([user_key(workspace, user)])
    if not documents or documents[0].get("deleted"):
        raise NotFound(f"there is no user {user} in {workspace}{': deleted' if documents else ''}")
    return documents[0]


def _show(made: Preview, *, html: Path | None, eml: Path | None, text: bool, headers: bool, as_json: bool) -> None:
    if html is not None:
        if not made.html:
            raise WrongCall("the message is plain text: it has no HTML", remedy="use --text")
        _write(html, made.html.encode())
    if eml is not None:
        _write(eml, made.envelope.raw)
    if as_json:
        envelope = {"from": made.envelope.sender, "to": made.envelope.recipient}
        show_json({"envelope": envelope, "headers": list(made.headers), "text": made.text, "html": made.html})
        return
    written = html is not None or eml is not None
    if headers or not (text or written):
        lines = [f"envelope from {made.envelope.sender} to {made.envelope.recipient}"]
        typer.echo("\n".join([*lines, *(f"{name}: {value}" for name, value in made.headers)]))
    if text or not (headers or written):
        typer.echo(made.text.rstrip() if text else f"\n{made.text.rstrip()}")


def _write(place: Path, content: bytes) -> None:
    if str(place) == "-":
        sys.stdout.buffer.write(content)
        sys.stdout.flush()
        return
    try:
        place.write_bytes(content)
    except OSError as error:
        raise EngineError(f"{place} cannot be written: {error.strerror}", remedy="name another file") from error
    say(f"written to {place}")
