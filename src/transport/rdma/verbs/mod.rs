//! Owning wrappers of libibverbs objects, and the table of its functions.
use rdma_sys as _;
