"""Which channels depend on each other, what each is worth, and their removal. Used by passes; imports none of them."""
