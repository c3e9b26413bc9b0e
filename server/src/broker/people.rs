//! Users and permissions: changed, stored, restored.

use super::exception::Exception;
use super::permission::Permission;
use super::store::{Kind, key};
use super::user::User;
use super::{Broker, Context};
use leveret_engine::BatchId;
use serde_json::Value;

impl Broker {
    /// Whether there is a user of that name.
    pub fn has_user(&self, name: &str) -> bool {
        self.users.get(name).is_some()
    }

    /// Whether there is a virtual host of that name.
    pub fn has_vhost(&self, name: &str) -> bool {
        self.topology.find_vhost(name).is_some()
    }

    /// A parameter of the whole node.
    pub fn global_parameter(&self, name: &str) -> Option<&Value> {
        self.global_parameters.get(name)
    }

    /// Makes or replaces a user.
    ///
    /// # Errors
    /// 506 when the log takes nothing more.
    pub(super) fn put_user(
        &mut self,
        user: User,
        ctx: &mut Context<'_>,
    ) -> Result<BatchId, Exception> {
        let key = key(Kind::User, &[user.name.as_bytes()]);
        let batch = self.put_record(&key, &user.to_record(), ctx)?;
        self.users.put(user);
        Ok(batch)
    }

    /// Sets what a user may do in a virtual host.
    ///
    /// # Errors
    /// 506 when the log takes nothing more.
    pub(super) fn put_permission(
        &mut self,
        user: &str,
        vhost: &str,
        permission: Permission,
        ctx: &mut Context<'_>,
    ) -> Result<BatchId, Exception> {
        let key = key(Kind::Permission, &[vhost.as_bytes(), user.as_bytes()]);
        let batch = self.put_record(&key, &permission.to_record(user, vhost), ctx)?;
        self.permissions.set(user, vhost, permission);
        Ok(batch)
    }
}
