//! (room `relay`)
