//! Kernel mechanisms, synchronous. The only crate of the workspace that may use `unsafe`.
