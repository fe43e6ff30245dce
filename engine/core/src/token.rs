//! The token: identifier, secret, text form.
