"""From any labelled table to labels and texts, to BERT's TSV, and to splits that share no text."""
