readMarks();
readAddress();
if (data.live) { countLive(); loadPart(); }
