"""`unimodal chat`: a conversation, in the terminal or from a script."""

from typing import Annotated

import typer

from unimodal_apps.options import PLACE, InterleaveSettings, Run, grouped


@grouped
def chat(
    message: Annotated[
        list[str] | None,
        typer.Argument(help="What to say, one turn each; lines of the standard input if left out."),
    ] = None,
    image: Annotated[
        list[str] | None, typer.Option("--image", help="A picture of the first turn; may be repeated.")
    ] = None,
    draw: Annotated[bool, typer.Option("--draw", help="Answers may hold pictures.")] = False,
    system: Annotated[str | None, typer.Option(help="How the model is to answer.")] = None,
    history: Annotated[
        str | None,
        typer.Option(metavar="FILE", help="Go on with the conversation of this file, and write it back."),
    ] = None,
    output: Annotated[
        str | None,
        typer.Option("--output", "-o", help="Folder for the pictures of the answers.", rich_help_panel=PLACE),
    ] = None,
    *,
    settings: InterleaveSettings,
    run: Run,
) -> None:
    """Talk with the model, about pictures too.

    At a terminal, a line that begins with /image shows a picture with the next turn, and an empty line ends it.

    \b
    Examples:
      unimodal chat
      unimodal chat "what is in the picture?" "is it large?" --image car.png
      unimodal chat "tell a story about a boat." --draw -o story
      unimodal chat "and its color?" --history talk.json
    """
    from unimodal.arguments import read_texts
    from unimodal_apps.conversation import Conversation, listen
    from unimodal_apps.session import report

    words = read_texts("message", message) if message else []
    talk = Conversation(history, output, system=system, draws=draw, arguments=settings.stated(), seed=run.seed)
    for path in image or []:
        talk.show(path)
    talk.open(run)
    for turn in words:
        talk.say(turn, aloud=not run.as_json)
    if not words:
        listen(talk, aloud=not run.as_json)
    if run.as_json:
        report(True, talk.as_result(), [])
