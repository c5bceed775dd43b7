//! Engines with RDMA and TCP.
