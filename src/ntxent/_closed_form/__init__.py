"""Every loss with its gradient written out, for backends that differentiate it so."""
