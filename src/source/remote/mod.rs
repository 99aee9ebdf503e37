//! A source that is a server: Hrana over HTTP, in pipelines that ask for a whole window at once.
//!
//! `client` sends one request and classifies its failure; `wire` is the JSON of the protocol; `talk` is the requests
//! that batons tie together; `stream` is one connection in the sense of SQL: transactions, what is asked ahead, what
//! is written behind; `once` asks for a window in a single request, and for the next ones meanwhile; `pack` brings
//! rows back bit for bit as one value; `listen` hears that something changed; `resolve` keeps the server's addresses;
//! `token` keeps the secret.
//!
//! The only folder that names Hrana or HTTP. Must never show the token, nor take what a server says for true
//! before it is known to come from one transaction.

mod client;
mod fail;
#[cfg(any(fuzzing, test))]
pub(crate) mod fuzz;
mod listen;
mod once;
mod pack;
mod resolve;
mod stream;
mod talk;
mod token;
mod url;
mod wait;
mod wire;

pub(crate) use client::Server;
pub use client::Traffic;
pub(crate) use stream::{Stream, Values};
pub use token::Token;
pub(crate) use wait::Wait;
