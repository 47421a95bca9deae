"""Accounts: the operations of the API."""

import strawberry

from accounts.identity_schema import IdentityMutation, IdentityQuery


@strawberry.type
class AccountsQuery(IdentityQuery):
    pass


@strawberry.type
class AccountsMutation(IdentityMutation):
    pass
