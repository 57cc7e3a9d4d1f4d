//! How a connection over TCP begins, where the guest's unix socket cannot be reached: the host says
//! the secret, the guest answers with one byte, and then it is as on the unix socket, except that
//! no descriptors are passed. After the `End` of a `Connect` the connection itself leads to the
//! port: what follows is that port's.

/// Bytes of the secret.
pub const SECRET_LEN: usize = 32;
/// What the guest answers.
pub const WELCOME: u8 = 0x0a;
