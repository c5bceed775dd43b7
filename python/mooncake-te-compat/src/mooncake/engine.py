"""Upstream's module of this name, over mooncake_te. The parts are in mooncake_te_compat."""

from mooncake_te import __version__
from mooncake_te_compat.absent import (
    ReceivedData,
    ReceivedTensor,
    RpcInterface,
    SharedSegment,
    create_rpc_client,
    create_rpc_server,
)
from mooncake_te_compat.engine import TransferEngine
from mooncake_te_compat.inner import InnerTransferEngine
from mooncake_te_compat.scatter import ScatterTransferTicket
from mooncake_te_compat.values import ScatterTransferCompletionStatus, TransferNotify, TransferOpcode

SUPPORT_CUDA: bool = False
SUPPORT_EFA: bool = False
SUPPORT_HIP: bool = False
SUPPORT_INTRA_NVLINK: bool = False
SUPPORT_MNNVL: bool = False
SUPPORT_MULTI_PROTOCOL: bool = False
SUPPORT_MUSA: bool = False

Read = TransferOpcode.Read
Write = TransferOpcode.Write
CoroRPCInterface = RpcInterface

for _class in (
    InnerTransferEngine,
    ReceivedData,
    ReceivedTensor,
    RpcInterface,
    ScatterTransferCompletionStatus,
    ScatterTransferTicket,
    SharedSegment,
    TransferEngine,
    TransferNotify,
    TransferOpcode,
):
    _class.__module__ = __name__
del _class

__all__ = [
    "SUPPORT_CUDA",
    "SUPPORT_EFA",
    "SUPPORT_HIP",
    "SUPPORT_INTRA_NVLINK",
    "SUPPORT_MNNVL",
    "SUPPORT_MULTI_PROTOCOL",
    "SUPPORT_MUSA",
    "CoroRPCInterface",
    "InnerTransferEngine",
    "Read",
    "ReceivedData",
    "ReceivedTensor",
    "RpcInterface",
    "ScatterTransferCompletionStatus",
    "ScatterTransferTicket",
    "SharedSegment",
    "TransferEngine",
    "TransferNotify",
    "TransferOpcode",
    "Write",
    "__version__",
    "create_rpc_client",
    "create_rpc_server",
]
