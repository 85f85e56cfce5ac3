"""One task is found in a DAG file, or one line says why not."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from airflow_batchkit.cli.run_dag_file import find_task
from airflow_batchkit.cli.run_library import airflow_as_a_library
from airflow_batchkit.engine.exceptions import UsageError

DAGS = Path(__file__).parents[3] / "dags"
EXPORT = """
from airflow.sdk import DAG
from airflow_batchkit import BatchPipelineOperator, IterableSource, ObjectStorageSink

def export(dag_id, task_id="export", operator=BatchPipelineOperator):
    with DAG(dag_id, schedule=None) as dag:
        operator(
            task_id=task_id,
            source=IterableSource(records=list),
            sink=ObjectStorageSink(url="file:///nowhere"),
        )
    return dag
"""


@pytest.fixture(autouse=True)
def _airflow() -> Iterator[None]:
    before = list(sys.path)
    with airflow_as_a_library():
        yield
    sys.path[:] = before


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Give a folder of DAG files."""
    return tmp_path


def write(folder: Path, text: str) -> Path:
    """Write a DAG file."""
    file = folder / "orders.py"
    file.write_text(text)
    return file


@pytest.mark.parametrize(
    ("name", "task_id"),
    [
        ("example_elasticsearch_to_s3", "export_orders"),
        ("example_embedded", "export_orders"),
        ("example_nightly_export", "export"),
    ],
)
def test_the_examples_are_found(name: str, task_id: str) -> None:
    """The tasks of the shipped examples are found."""
    dag, task = find_task(DAGS / f"{name}.py", task_id)
    assert (dag.dag_id, task.task_id) == (name, task_id)


def test_a_file_may_import_its_neighbours(folder: Path) -> None:
    """What lies beside the DAG file can be imported, as from Airflow's DAG folder."""
    (folder / "shared_names_of_orders.py").write_text("NAME = 'neighbour'\n")
    file = write(folder, f"import shared_names_of_orders as names\n{EXPORT}\nexport(names.NAME)\n")
    assert find_task(file, "export")[0].dag_id == "neighbour"


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("from airflow.sdk import DAG\nx = (1,\n", r"orders.py, line 2: SyntaxError: '\(' was never closed"),
        (
            "import airflow\nimport no_such_module\n",
            "orders.py, line 2: ModuleNotFoundError: No module named",
        ),
        (f"{EXPORT}\ndag = export('d', 'two words')\n", "orders.py, line 7: "),
        ("import sys\nsys.exit(3)\n", "orders.py, line 2: SystemExit: 3"),
        ("answer = 42\n", "orders.py: no DAG in this file"),
        (f"{EXPORT}\nexport('a'); export('b')\n", "is in the DAGs a, b; choose one with --dag-id"),
        (f"{EXPORT}\nexport('a', 'other')\n", "no task 'export'; its tasks are other"),
    ],
)
def test_an_error_is_one_line_with_its_place(folder: Path, text: str, message: str) -> None:
    """What is wrong with a DAG file is said in one line, with the line to mend where there is one."""
    with pytest.raises(UsageError, match=message) as refused:
        find_task(write(folder, text), "export")
    assert "\n" not in str(refused.value)


def test_a_file_that_is_not_there(folder: Path) -> None:
    """A mistyped path is said as such."""
    with pytest.raises(UsageError, match="there is no DAG file"):
        find_task(folder / "no.py", "export")


def test_one_dag_of_several_can_be_chosen(folder: Path) -> None:
    """``--dag-id`` chooses, and an unknown one is refused with the known ones."""
    file = write(folder, f"{EXPORT}\nexport('a'); export('b')\n")
    assert find_task(file, "export", dag_id="b")[0].dag_id == "b"
    with pytest.raises(UsageError, match="no DAG 'c'; its DAGs are a, b"):
        find_task(file, "export", dag_id="c")


def test_other_operators_are_left_to_airflow(folder: Path) -> None:
    """An operator of another package is refused with the command that runs it."""
    file = write(
        folder,
        "from airflow.sdk import DAG\nfrom airflow.providers.standard.operators.empty import EmptyOperator\n"
        "with DAG('d', schedule=None): EmptyOperator(task_id='export')\n",
    )
    with pytest.raises(UsageError, match=r"is a EmptyOperator, .* airflow tasks test d export"):
        find_task(file, "export")


def test_an_execute_of_ones_own_is_left_to_airflow(folder: Path) -> None:
    """A subclass that does more in ``execute`` is refused: that part would be left out silently."""
    mine = "class Mine(BatchPipelineOperator):\n    def execute(self, context):\n        return {}\n"
    file = write(folder, f"{EXPORT}\n{mine}\nexport('d', operator=Mine)\n")
    with pytest.raises(UsageError, match=r"Mine has an execute\(\) of its own"):
        find_task(file, "export")
