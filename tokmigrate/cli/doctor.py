"""The command `doctor`."""

from __future__ import annotations

from tokmigrate.cli import output
from tokmigrate.cli.each import Result, print_result
from tokmigrate.cli.options import AsJson, Models, open_workspace, open_workspace_if_present
from tokmigrate.commands import doctor as examination
from tokmigrate.errors import TokmigrateError
from tokmigrate.render import doctor as report


def doctor(model: Models = None, as_json: AsJson = False) -> None:
    """Show versions, extras, the state, and what filesystems can do.

    What the filesystem of each model can do is tried with temporary files beside the model, and nothing in it is
    touched. Outside a workspace only the installation is examined. Exits with 1 if an upgrade would fail for one of the
    problems that it lists; an extra that is missing is none.
    """
    installation = examination.examine_installation()
    content = report.installation_content(installation)
    text = [*report.installation_text(installation)]
    problems = [*installation.problems]
    try:
        workspace = open_workspace() if model else open_workspace_if_present()
        if workspace:
            found = examination.examine_workspace(workspace)
            models = [examination.examine_model(entry) for entry in workspace.select(model or [])]
            content |= report.workspace_content(found, models)
            text += report.workspace_text(found, models)
            problems += [*found.problems, *(problem for each in models for problem in each.problems)]
    except TokmigrateError as error:
        problems.append(error)
    content["problems"] = [output.error_document(problem)["error"] for problem in problems]
    text += report.problem_lines(problems)
    print_result("doctor", Result(content, text, exit_code=1 if problems else 0), as_json)
