//! The gateway's face: parses what is asked, asks the rest of the crate once, renders the answer.

mod backends;
mod codec;
pub mod convert;
mod list;
mod methods;
mod offers;
mod service;
mod stream;
mod watch;
pub mod wire;

pub use codec::OffersServer;
pub use methods::METHODS;
pub use service::{Offers, Parts};
