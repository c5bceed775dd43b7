"""mooncake.engine has each name of upstream's 0.3.14, with its parameters: signatures.txt, read off that release."""

import inspect
from pathlib import Path

import pytest
from mooncake import engine as module

SIGNATURES = Path(__file__).with_name("signatures.txt").read_text().splitlines()
NAMES = """SUPPORT_CUDA SUPPORT_EFA SUPPORT_HIP SUPPORT_INTRA_NVLINK SUPPORT_MNNVL SUPPORT_MULTI_PROTOCOL SUPPORT_MUSA TransferOpcode Read Write
ScatterTransferCompletionStatus ScatterTransferTicket TransferNotify InnerTransferEngine TransferEngine SharedSegment ReceivedData
ReceivedTensor RpcInterface CoroRPCInterface create_rpc_client create_rpc_server""".split()
PROPERTIES = {
    "TransferOpcode": "name value",
    "ScatterTransferCompletionStatus": "name value",
    "ScatterTransferTicket": "status drained",
    "TransferNotify": "name msg",
    "ReceivedData": "source_address data_size",
    "ReceivedTensor": "source_address shape dtype total_bytes",
}


def without_types(function):
    signature = inspect.signature(function)
    plain = [parameter.replace(annotation=inspect.Parameter.empty) for parameter in signature.parameters.values()]
    return str(signature.replace(parameters=plain, return_annotation=inspect.Signature.empty))


@pytest.mark.parametrize("line", SIGNATURES)
def test_parameters_are_upstreams(line):
    path, bracket, rest = line.partition("(")
    function = module
    for part in path.split("."):
        function = inspect.getattr_static(function, part) if inspect.isclass(function) else getattr(function, part)
    assert without_types(getattr(function, "__func__", function)) == bracket + rest


def test_every_name_is_there_and_no_other():
    assert len(SIGNATURES) == 71
    assert sorted(module.__all__) == sorted([*NAMES, "__version__"])
    public = {name for name in dir(module) if not name.startswith("_")}
    assert public == set(NAMES)
    methods = {line.partition("(")[0] for line in SIGNATURES}
    ours = {f"TransferEngine.{name}" for name in dir(module.TransferEngine) if not name.startswith("_")}
    assert ours == {name for name in methods if name.startswith("TransferEngine.")} | {"TransferEngine.TransferOpcode"}
    for kind, names in PROPERTIES.items():
        for name in names.split():
            assert isinstance(inspect.getattr_static(getattr(module, kind), name), property), (kind, name)


def test_classes_say_where_they_come_from():
    for name in NAMES:
        kind = getattr(module, name)
        if inspect.isclass(kind):
            assert kind.__module__ == "mooncake.engine"
