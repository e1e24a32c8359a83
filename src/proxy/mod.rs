//! (room `proxy`)
