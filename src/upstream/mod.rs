//! (room `upstream`)
