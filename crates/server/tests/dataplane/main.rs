//! The data plane over real sockets, in front of real guests.

mod common;
mod files;
mod filesystem;
mod gateway;
mod listener;
mod process;
