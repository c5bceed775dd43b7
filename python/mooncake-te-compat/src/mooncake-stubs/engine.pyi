# `partial` in py.typed: upstream's other modules keep their own types where its package is installed too.
from mooncake_te_compat.absent import ReceivedData as ReceivedData
from mooncake_te_compat.absent import ReceivedTensor as ReceivedTensor
from mooncake_te_compat.absent import RpcInterface as RpcInterface
from mooncake_te_compat.absent import SharedSegment as SharedSegment
from mooncake_te_compat.absent import create_rpc_client as create_rpc_client
from mooncake_te_compat.absent import create_rpc_server as create_rpc_server
from mooncake_te_compat.engine import TransferEngine as TransferEngine
from mooncake_te_compat.inner import InnerTransferEngine as InnerTransferEngine
from mooncake_te_compat.scatter import ScatterTransferTicket as ScatterTransferTicket
from mooncake_te_compat.values import ScatterTransferCompletionStatus as ScatterTransferCompletionStatus
from mooncake_te_compat.values import TransferNotify as TransferNotify
from mooncake_te_compat.values import TransferOpcode as TransferOpcode

__version__: str
SUPPORT_CUDA: bool
SUPPORT_EFA: bool
SUPPORT_HIP: bool
SUPPORT_INTRA_NVLINK: bool
SUPPORT_MNNVL: bool
SUPPORT_MULTI_PROTOCOL: bool
SUPPORT_MUSA: bool
Read: TransferOpcode
Write: TransferOpcode
CoroRPCInterface = RpcInterface
