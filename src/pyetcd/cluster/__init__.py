"""Who is in the cluster, which versions it has agreed on, and how a new one begins.

Everything here is pure or writes only to the backend's buckets; time and randomness are handed in. Nothing
waits but `dns`, which asks name servers for who calls it.
"""
