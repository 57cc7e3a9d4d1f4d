//! Conversations with agents over the Agent Client Protocol (ACP), as decisions.
//!
//! ACP is JSON-RPC 2.0, one message per line, between a client and an agent process. This crate
//! knows what a message means and what has to happen because of it; it does no IO and has no
//! clock. [`Conversation`] takes what came (a client's message, a line of the agent, the end of
//! the agent) and gives a [`Step`]: what to append to the log, and what to do once that is
//! durable. Protocol: <https://agentclientprotocol.com/protocol/schema>.
#![forbid(unsafe_code)]

mod conversation;
mod message;
mod replay;
pub mod universal;

pub use conversation::{
    Act, AgentEnd, Asked, ClientMessage, Conversation, Failure, Mark, Options, Outcome, Prompt,
    Step, Waiter, rewound_to,
};
pub use message::{Class, Envelope, Id, Unreadable};
pub use replay::{History, REPLAY_CHARS, REPLAY_EVENTS, history};
