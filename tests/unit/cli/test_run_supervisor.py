"""In place of Airflow's supervisor: XComs that were given, and a clear line for everything else."""

from __future__ import annotations

import pytest
from airflow.sdk.exceptions import ErrorType  # noqa: TID253  # what is tested
from airflow.sdk.execution_time import comms  # noqa: TID253  # what is tested

from airflow_batchkit.cli.run_supervisor import CommandLineSupervisor
from airflow_batchkit.engine.exceptions import UsageError

SUPERVISOR = CommandLineSupervisor({("days", "return_value"): ["a"], ("days", "count"): 1})


def test_given_xcoms_are_known() -> None:
    """An XCom is found by task and key, one by one or as a sequence."""
    one = comms.GetXCom(key="count", dag_id="d", run_id="r", task_id="days")
    every = comms.GetXComSequenceSlice(
        key="return_value", dag_id="d", run_id="r", task_id="days", start=None, stop=None, step=None
    )
    assert SUPERVISOR.send(one).value == 1
    assert SUPERVISOR.send(every).root == [["a"]]


@pytest.mark.parametrize(("key", "option"), [("return_value", "survey=JSON"), ("size", "survey:size=JSON")])
def test_other_xcoms_are_asked_for(key: str, option: str) -> None:
    """The message names the option that gives what is missing."""
    with pytest.raises(UsageError, match=f"'survey' returned .* --xcom {option}"):
        SUPERVISOR.send(comms.GetXCom(key=key, dag_id="d", run_id="r", task_id="survey"))


def test_connections_and_variables_beyond_the_environment_are_unknown() -> None:
    """Airflow's own lookup goes on to say that they are not defined."""
    assert SUPERVISOR.send(comms.GetConnection(conn_id="c")).error == ErrorType.CONNECTION_NOT_FOUND
    assert SUPERVISOR.send(comms.GetVariable(key="v")).error == ErrorType.VARIABLE_NOT_FOUND
    assert SUPERVISOR.send(comms.MaskSecret(value="secret")) is None


def test_what_only_the_database_knows_is_refused() -> None:
    """A question about other runs is answered by a line that says where the answer is."""
    with pytest.raises(UsageError, match=r"\(dr count\) is in Airflow's database only"):
        SUPERVISOR.send(comms.GetDRCount(dag_id="d"))
