"""The studio in the browser, in English and Arabic; the one owner of gradio."""
