//! What a person or a program reads on standard output. Decides how things
//! look; never what is shown.

pub(crate) mod json;
pub(crate) mod style;
pub(crate) mod table;
