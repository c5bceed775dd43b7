import mooncake_te
import pytest
import rig
from mooncake.engine import TransferEngine


@pytest.fixture
def engine():
    with mooncake_te.Engine("127.0.0.1", protocol="tcp") as engine:
        yield engine


@pytest.fixture
def target():
    with mooncake_te.Engine("127.0.0.1", protocol="tcp") as engine:
        yield engine


@pytest.fixture
def compatible():
    """A TransferEngine and its session id."""
    engine = TransferEngine()
    assert engine.initialize("127.0.0.1", "P2PHANDSHAKE", "tcp", "") == 0
    return engine, f"127.0.0.1:{engine.get_rpc_port()}"


@pytest.fixture
def peer():
    with rig.Peer() as peer:
        yield peer
