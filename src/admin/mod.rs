//! (room `admin`)
