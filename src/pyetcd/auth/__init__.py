"""Who may do what: users, roles and their permissions, tokens, passwords.

The state lives in etcd's three buckets, in etcd's bytes, and changes only through entries of the log, so it
is the same on every member; each change raises the auth revision, and a request carries the revision at which
its caller was made out. One that is older when it is applied is refused ("revision of auth store is old"),
because what was allowed then may not be allowed now.

| module | what it decides |
| --- | --- |
| `caller` | who asks: a name and the auth revision at which that was found out |
| `accounts` | users and roles in the database |
| `intervals`, `access` | which keys a user may read and write |
| `store` | what is permitted, the entries that change users and roles, on and off |
| `requests` | which permissions a request needs, transactions at any depth included |
| `passwords` | bcrypt, in threads of its own, a bounded number at a time |
| `tokens`, `simple_tokens`, `signed_tokens` | what stands for a name on a request |
| `token_form`, `signing` | how a signed token looks, and the algorithms and keys it is signed with |
"""
