"""`kl report`: one page of one or several runs, from what they have left in their folders."""
