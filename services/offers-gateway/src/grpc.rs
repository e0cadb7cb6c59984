//! The gateway's face: parses what is asked, asks the rest of the crate once, renders the answer.

mod codec;
pub mod convert;
mod list;
mod service;
pub mod wire;

pub use codec::OffersServer;
pub use service::Offers;
