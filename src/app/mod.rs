//! (room `app`)
