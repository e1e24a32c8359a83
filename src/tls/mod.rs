//! (room `tls`)
