//! (room `route`)
