//! (room `control`)
