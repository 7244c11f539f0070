"""Running the course: papermill runs, pairing, anatomy, student copies, slides, the README's tables, the doctor."""
