import subprocess
import time
from pathlib import Path

import psutil
import pytest

from stack.guardian import Guardian
from stack.supervisor import Stack
from stack.topology import SERVERS, Broker
from tests.stack.conftest import needs_broker, nothing_is_left_of, processes_of


@pytest.fixture
def guardian():
    guardian = Guardian()
    yield guardian
    guardian.close()


def _start(guardian: Guardian, *argv: str) -> subprocess.Popen[bytes]:
    return subprocess.Popen(
        guardian.reporting(argv), stdin=guardian.pipe, stdout=subprocess.PIPE, start_new_session=True
    )


def test_ends_what_is_left_when_its_pipe_ends(guardian: Guardian):
    with _start(guardian, "sh", "-c", "sleep 100 & echo $!; wait") as child:
        assert child.stdout is not None
        grandchild = int(child.stdout.readline())
        guardian.close()
        assert child.wait(5) == -9
    assert _gone(grandchild)


def test_spares_what_was_forgotten(guardian: Guardian):
    with _start(guardian, "sh", "-c", "echo started; exec sleep 100") as child:
        assert child.stdout is not None
        child.stdout.readline()
        guardian.forget(child.pid)
        guardian.close()
        assert child.poll() is None
        child.kill()


@pytest.mark.parametrize(("broker", "processes"), [("kafka", {"java"}), ("rabbit", {"beam.smp", "epmd"})])
async def test_ends_all_processes_of_a_server(broker: Broker, processes: set[str], tmp_path: Path):
    """Erlang's leave nothing to be found by a parent: epmd makes itself a daemon if it may."""
    needs_broker(broker)
    async with Stack(tmp_path) as stack:
        await stack.start(SERVERS[broker].make(stack.directory, durability="confirmed"), supervised=False)
        assert processes <= {process.name() for process in processes_of(tmp_path)}
        stack._guardian.close()
        nothing_is_left_of(tmp_path)


def test_a_child_keeps_its_process_id_and_an_empty_input(guardian: Guardian):
    with _start(guardian, "sh", "-c", "echo $$; cat; echo done") as child:
        assert child.stdout is not None
        assert child.stdout.read().split() == [str(child.pid).encode(), b"done"]


def test_outlives_an_interrupt(guardian: Guardian):
    process = psutil.Process(guardian.pid)
    with _start(guardian, "sleep", "100") as child:
        _wait_for_handlers(process)
        process.terminate()
        process.send_signal(2)
        assert process.is_running()
        guardian.close()
        assert child.wait(5) == -9


def _wait_for_handlers(process: psutil.Process) -> None:
    deadline = time.monotonic() + 5
    while time.monotonic() < deadline:
        with open(f"/proc/{process.pid}/status") as status:
            ignored = next(line for line in status if line.startswith("SigIgn:"))
        if int(ignored.split()[1], 16) & 1 << 14:
            return
        time.sleep(0.01)
    raise AssertionError("the guardian never set its signals")


def _gone(pid: int) -> bool:
    deadline = time.monotonic() + 5
    while time.monotonic() < deadline:
        if not psutil.pid_exists(pid) or psutil.Process(pid).status() == psutil.STATUS_ZOMBIE:
            return True
        time.sleep(0.01)
    return False
