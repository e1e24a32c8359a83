//! (room `snapshot`)
