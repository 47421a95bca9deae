"""Accounts: the operations of the API."""

import strawberry

from accounts.identity_schema import IdentityMutation, IdentityQuery
from accounts.organizations_schema import OrganizationsMutation, OrganizationsQuery


@strawberry.type
class AccountsQuery(IdentityQuery, OrganizationsQuery):
    pass


@strawberry.type
class AccountsMutation(IdentityMutation, OrganizationsMutation):
    pass
