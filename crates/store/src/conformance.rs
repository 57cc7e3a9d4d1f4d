//! What every adapter must do, one function per behaviour.
//!
//! An adapter's tests expand [`crate::store_conformance!`] with an async function that makes an
//! empty store, and get one test per behaviour.

pub mod fixture;
