//! (room `cache`)
