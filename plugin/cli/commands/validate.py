"""devicevm validate: is what is declared right?"""

from __future__ import annotations

from .. import output
from ..manifests import find_problems
from ..options import command, compose, format_option, paths_argument


@command(
    "validate",
    ("Check all manifests below a folder", "devicevm validate manifests/"),
    ("Check what another tool makes", "kustomize build overlays/lab | devicevm validate -"),
    ("A list of problems for an editor or a pipeline", "devicevm validate -o json web.yaml storage.yaml"),
)
@compose(paths_argument, format_option)
def validate(paths: tuple[str, ...], form: str) -> int:
    """Tell everything that is wrong in manifests.

    PATH is a file, a folder or `-` for standard input. Each problem is written to standard output as
    file:line:column: path in the document: what is wrong (what to do). No VMM is asked.
    """
    problems = find_problems(paths)
    if form == "json":
        output.document(problems)
    for problem in problems if form == "text" else ():
        output.line(str(problem))
    if problems:
        output.note(f"{len(problems)} problem{'s' if len(problems) > 1 else ''} found")
    elif form == "text":
        output.line("No problems.")
    return 1 if problems else 0
