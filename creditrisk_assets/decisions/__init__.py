"""Past decisions: their log, archive and replay. Making a decision belongs in `scoring`."""
