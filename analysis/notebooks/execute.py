"""`make notebooks`: every text notebook of this folder, executed and written as .ipynb with its outputs.

The text (.md) is what is edited and reviewed. Executed again with the packages of requirements.lock, a notebook has the
same bytes on the same machine: cells have ids by their place, and there are no times, versions or paths in it.
"""

from __future__ import annotations

import os
from pathlib import Path
from tempfile import TemporaryDirectory

import jupytext
import nbformat
from nbclient import NotebookClient
from nbformat import NotebookNode
from traitlets.config import Config

FOLDER = Path(__file__).parent
SECONDS = 300  # a cell may take


def text_notebooks() -> list[Path]:
    """The text forms, by name."""
    return sorted(FOLDER.glob("*.md"))


def read_text(path: Path) -> NotebookNode:
    """A text notebook without outputs, as it is committed but for them."""
    notebook = jupytext.read(path)
    notebook.nbformat, notebook.nbformat_minor = 4, 5
    notebook.metadata = NotebookNode(
        kernelspec={"display_name": "Python 3 (ipykernel)", "language": "python", "name": "python3"},
        language_info={"name": "python"},
    )
    for number, cell in enumerate(notebook.cells):
        cell.id, cell.metadata = f"{path.stem}-{number}", NotebookNode()
    return notebook


def execute(notebook: NotebookNode) -> None:
    """Run all cells in a new kernel of this Python, in this folder, whatever the user's IPython profile is.

    Raises:
        nbclient.exceptions.CellExecutionError: a cell failed.
    """
    metadata = notebook.metadata.copy()
    with TemporaryDirectory() as folder:
        # Sockets are files in that folder: no port that others could reach.
        sockets = {"transport": "ipc", "connection_file": str(Path(folder) / "kernel.json")}
        client = NotebookClient(
            notebook,
            timeout=SECONDS,
            record_timing=False,
            coalesce_streams=True,  # what is printed arrives in pieces, as time will have it
            resources={"metadata": {"path": str(FOLDER)}},
            config=Config(KernelManager=sockets),
        )
        client.execute(env=os.environ | {"IPYTHONDIR": folder})
    notebook.metadata = metadata  # the kernel adds its version


def main() -> None:
    for path in text_notebooks():
        notebook = read_text(path)
        execute(notebook)
        nbformat.write(notebook, path.with_suffix(".ipynb"))
        print(f"{path.stem}.ipynb")


if __name__ == "__main__":
    main()
