//! (room `server`)
