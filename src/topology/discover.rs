//! Which NICs this machine has, and near which memory they are.

use std::path::PathBuf;

use super::Matrix;
use crate::error::Result;

/// Where the trees of the system are.
#[derive(Clone, Debug, Default)]
pub struct Root(pub PathBuf);

/// Stand-in that finds nothing.
pub fn discover(root: &Root, usable: &dyn Fn(&str) -> bool, filters: &[String]) -> Result<Matrix> {
    let _ = (root, usable, filters);
    Ok(Matrix::default())
}
