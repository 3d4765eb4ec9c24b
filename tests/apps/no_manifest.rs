//! A library that is no app.
